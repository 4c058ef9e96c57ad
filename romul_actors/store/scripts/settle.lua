-- End a lease with a message to the inbox, once: a report, a release or an expiry.
-- KEYS: trials, settled   ARGV: holder, entry id, token, message, slot, inbox
-- inbox is no key of the call's: what a script declares it must be allowed to read, and a worker is not.
-- The token is kept, so that the same call sent twice (its first answer was lost) is 1 again.
-- Returns 1; 0 if the lease is not the holder's any more.
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
