-- Put a dead letter back into its queue.
-- KEYS: dead, the queue   ARGV: the dead letter's id, its body
-- It is removed from the dead letters after it has been queued.
-- Returns 1; 0 if the dead letter is gone.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
