-- Forget consumers that have nothing of a queue and have not read it for a while.
-- KEYS: inbox, trials, targeted   ARGV: how long in ms, the one to forget or '' for all
-- Not while an entry is pending: it would belong to no consumer, and no take-over would find it.
-- A user of an older ACL file may not list consumers, and a queue may be gone: then they stay.
for i, stream in ipairs(KEYS) do
  local group = i == 1 and 'actors' or 'workers'
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  for _, flat in ipairs(consumers.err and {} or consumers) do
    local consumer = {}
    for j = 1, #flat, 2 do
      consumer[flat[j]] = flat[j + 1]
    end
    if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[1])
      and (ARGV[2] == '' or ARGV[2] == consumer.name) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer.name)
    end
  end
end
