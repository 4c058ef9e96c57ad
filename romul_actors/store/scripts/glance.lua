-- The state of an experiment for display: some fields of each slot, workers, queues, and history.
-- KEYS: meta, workers, inbox, trials, history, dead. The slots' keys share their hash tag.
-- ARGV: id after which to read history ('' for the latest), number of lines, fields of a slot ...
-- Returns {now in ms, meta, {values of a slot's fields, ...}, workers, depths, history, undecided};
-- nil if there is no such experiment. undecided is {{id, ''}} of the oldest inbox entry; if the
-- search has ended, {id, beginning of the body} of the ten oldest and ten newest, in order.
local meta = redis.call('HGETALL', KEYS[1])
if #meta == 0 then
  return nil
end
local fields = {}
for i = 3, #ARGV do
  fields[i - 2] = ARGV[i]
end
local rows = {}
if #fields > 0 then
  -- The number may be damaged: stop after a thousand missing hashes in a row.
  local missing = 0
  for i = 0, (tonumber(redis.call('HGET', KEYS[1], 'slots')) or 0) - 1 do
    local slot = KEYS[1] .. ':slot:' .. i
    rows[i + 1] = redis.pcall('HMGET', slot, unpack(fields))
    if rows[i + 1].err then
      local wrong = string.find(rows[i + 1].err, 'WRONGTYPE', 1, true)
      return wrong and redis.error_reply('WRONGTYPE of ' .. slot) or rows[i + 1]
    end
    missing = (rows[i + 1][1] or redis.call('EXISTS', slot) == 1) and 0 or missing + 1
    if missing == 1000 then
      break
    end
  end
end
local depths = {}
for i = 3, 6 do
  depths[i - 2] = redis.call('XLEN', KEYS[i])
end
depths[2] = depths[2] + redis.call('XLEN', KEYS[1] .. ':targeted')
  + redis.call('HLEN', KEYS[1] .. ':offers')
local lines = {}
local count = tonumber(ARGV[2])
if count > 0 then
  if ARGV[1] ~= '' then
    lines = redis.call('XRANGE', KEYS[5], '(' .. ARGV[1], '+', 'COUNT', count)
  else
    local latest = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', count)
    for i = #latest, 1, -1 do
      lines[#lines + 1] = latest[i]
    end
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local status = redis.call('HGET', KEYS[1], 'status')
local ended = status == 'finished' or status == 'failed' or status == 'stopped'
local undecided = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', ended and 10 or 1)
if #undecided == 10 then
  local newest = redis.call('XREVRANGE', KEYS[3], '+', '(' .. undecided[10][1], 'COUNT', 10)
  for i = #newest, 1, -1 do
    undecided[#undecided + 1] = newest[i]
  end
end
for i, entry in ipairs(undecided) do
  undecided[i] = {entry[1], ended and string.sub(entry[2][2], 1, 10000) or ''}
end
return {tostring(now), meta, rows, redis.call('HGETALL', KEYS[2]), depths, lines, undecided}
