-- A stream, its group and a consumer. KEYS: stream, bindings, version, registry. ARGV: group, consumer, name of a durable
-- subscription or '', its patterns, whether patterns that are there already hold, and ms after which it may be removed.
-- Answers how many of group and binding were made.
-- What is there is not made again: making needs memory, and a server without any must still be read from.
local types = ARGV[3] == '' and {'stream'} or {'stream', 'hash', 'string', 'hash'}
for i, wanted in ipairs(types) do
  local found = redis.call('TYPE', KEYS[i]).ok
  if found ~= 'none' and found ~= wanted then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i])
  end
end
local made = 0
if redis.pcall('XPENDING', KEYS[1], ARGV[1]).err then
  local group = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
  if group.err and not string.find(group.err, 'BUSYGROUP', 1, true) then
    return group
  end
  made = made + 1
end
redis.pcall('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
if ARGV[3] == '' then
  return made
end
local time, keep = redis.call('TIME'), ARGV[5] == '1'
local old = redis.call('HGET', KEYS[2], ARGV[3])
if not old or (not keep and old ~= ARGV[4]) or redis.call('EXISTS', KEYS[3]) == 0 then
  if not old or not keep then
    redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
    made = made + (old and 0 or 1)
  end
  -- The time, so that a version never comes back, not even after everything was deleted.
  redis.call('SET', KEYS[3], time[1] .. '.' .. time[2] .. '.' .. redis.sha1hex(ARGV[3] .. ' ' .. ARGV[4]))
end
local known = redis.call('HGET', KEYS[4], ARGV[3])
local seen = known and tonumber(string.match(known, ' (%d+)$'))
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not keep or not seen or now - seen >= math.min(60000, tonumber(ARGV[6]) / 10) then
  redis.pcall('HSET', KEYS[4], ARGV[3], ARGV[6] .. ' ' .. string.format('%d', now))
end
return made
