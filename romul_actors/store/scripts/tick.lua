-- Put a tick into the inbox, at most once in a given time, however many actors do so.
-- KEYS: tick, inbox   ARGV: that time in ms, message
-- Returns 1; 0 if that time has not passed.
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'm', ARGV[2])
  return 1
end
return 0
