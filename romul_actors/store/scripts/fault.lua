-- Store why an experiment cannot be served.
-- KEYS: meta   ARGV: the fault, or '' if it can be served
-- Returns 1; 0 if there is no such experiment.
if redis.call('HEXISTS', KEYS[1], 'spec') == 0 then
  return 0
end
if ARGV[1] == '' then
  redis.call('HDEL', KEYS[1], 'fault')
else
  redis.call('HSET', KEYS[1], 'fault', ARGV[1])
end
return 1
