-- Put a dead message back into its queue.
-- KEYS: dead, the queue   ARGV: the dead message's id, its body
-- Returns 1; 0 if it is gone.
if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[2])
return 1
