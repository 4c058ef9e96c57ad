-- Create an experiment, completely or not at all.
-- KEYS: meta, inbox, trials   ARGV: spec, submitted message, token of this call
-- Returns 1; 0 if there is one of that name (but 1 if the same call is sent twice); or the name of a
-- queue that exists without its experiment.
local token = redis.call('HGET', KEYS[1], 'created_by')
if token then
  return token == ARGV[3] and 1 or 0
end
for i = 1, 3 do
  if redis.call('EXISTS', KEYS[i]) == 1 then
    return KEYS[i]
  end
end
-- The queues first: a user that may not create them leaves nothing behind.
redis.call('XGROUP', 'CREATE', KEYS[2], 'actors', '0', 'MKSTREAM')
redis.call('XGROUP', 'CREATE', KEYS[3], 'workers', '0', 'MKSTREAM')
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'status', 'submitted', 'created_by', ARGV[3], 'spec', ARGV[1],
  'epoch', now[1] .. '-' .. now[2], 'version', 0, 'nonce', '', 'slots', 0)
redis.call('XADD', KEYS[2], '*', 'm', ARGV[2])
return 1
