-- A tick for the inbox, at most one in a while, whoever asks.
-- KEYS: tick, inbox   ARGV: milliseconds, message
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  redis.call('XADD', KEYS[2], 'NOMKSTREAM', '*', 'm', ARGV[2])
  return 1
end
return 0
