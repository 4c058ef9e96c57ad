-- Hand a leased trial on as it is, as if it had never been taken.
-- KEYS: trials   ARGV: worker, entry id, message
if not redis.call('XPENDING', KEYS[1], 'workers', ARGV[2], ARGV[2], 1, ARGV[1])[1] then
  return 0
end
redis.call('XADD', KEYS[1], '*', 'm', ARGV[3])
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 1
