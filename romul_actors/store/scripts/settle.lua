-- End a lease with a message to the inbox, once: a result, a failure, a release or an expiry.
-- KEYS: trials, settled   ARGV: holder, entry id, token, message, slot, inbox
-- inbox is not declared as a key: a user must have the right to read every declared key, and a
-- worker may not read this one.
-- The token is kept, so that the same call sent twice (its first reply was lost) returns 1 again.
-- Returns 1; 0 if the holder has lost the lease.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
if not redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1, ARGV[1])[1] then
  return redis.call('HGET', KEYS[2], ARGV[5]) == ARGV[3] and 1 or 0
end
redis.call('XADD', ARGV[6], '*', 'm', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[5], ARGV[3])
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
