-- A reader leaves. KEYS: readers, sign of life of a service, routing table, its permanent copy, version, lines that we made,
-- when durable subscriptions were read, who hears control messages, what ends with the process, then lists. ARGV: reader,
-- beginning of signs of life, sort (`service`, `passing`, or other), name of a durable subscription or '', ms that calls
-- are kept that nobody takes, list that hears control messages or '', then lines.
-- Answers how many others read.
local others = 0
redis.call('SREM', KEYS[1], ARGV[1])
for _, reader in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if redis.call('EXISTS', ARGV[2] .. string.match(reader, '^[^.]*')) == 1 then
    others = others + 1
  else
    redis.call('SREM', KEYS[1], reader)
  end
end
local unbind = ARGV[3] == 'passing' or (ARGV[3] == 'service' and others == 0)
if unbind then
  for i = 7, #ARGV do
    -- What a Kombu program bound stays.
    if redis.call('HDEL', KEYS[6], ARGV[i]) == 1 then
      redis.call('SREM', KEYS[3], ARGV[i])
      redis.call('SREM', KEYS[4], ARGV[i])
      local time = redis.call('TIME')
      redis.call('SET', KEYS[5], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[i]))
    end
    redis.call('SREM', KEYS[9], ARGV[i])
  end
end
if ARGV[3] == 'service' and others == 0 then
  redis.call('DEL', KEYS[2])
  for i = 10, #KEYS do
    redis.call('PEXPIRE', KEYS[i], ARGV[5])
  end
end
if ARGV[3] == 'passing' then
  redis.call('SREM', KEYS[8], ARGV[6])
  for i = 10, #KEYS do
    redis.call('DEL', KEYS[i])
  end
end
if ARGV[4] ~= '' then
  local time, known = redis.call('TIME'), redis.call('HGET', KEYS[7], ARGV[4])
  if known then
    redis.call('HSET', KEYS[7], ARGV[4], string.match(known, '^%d*') .. ' ' .. string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
  end
end
return others
