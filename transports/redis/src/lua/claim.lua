-- Takes over what others left. KEYS: stream. ARGV: group, consumer, lease in ms, most to take, cursor, channel of
-- life without the id, then consumers that were seen to be gone for long enough.
-- Answers {cursor, {{id, message, times handed out}...}, {consumers that hold entries and are gone now},
-- {consumers that live}}.
local key, group, me, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[4])
local taken = {}
local function take(entries)
  for _, entry in ipairs(entries) do
    if entry and entry[2] then
      local held = redis.call('XPENDING', key, group, entry[1], entry[1], 1)
      local message = ''
      for i = 1, #entry[2], 2 do
        if entry[2][i] == 'm' then message = entry[2][i + 1] end
      end
      taken[#taken + 1] = {entry[1], message, held[1] and held[1][4] or 1}
    end
  end
end
local function gone(consumer)
  return redis.call('PUBSUB', 'NUMSUB', ARGV[6] .. consumer)[2] == 0
end
local claimed = redis.call('XAUTOCLAIM', key, group, me, ARGV[3], ARGV[5], 'COUNT', most)
take(claimed[2])
for i = 7, #ARGV do
  if #taken < most and gone(ARGV[i]) then
    local ids = {}
    for _, held in ipairs(redis.call('XPENDING', key, group, '-', '+', most - #taken, ARGV[i])) do
      ids[#ids + 1] = held[1]
    end
    if #ids > 0 then
      take(redis.call('XCLAIM', key, group, me, 0, unpack(ids)))
    end
  end
end
local absent, present = {}, {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', key, group)) do
  local name, pending, idle = info[2], info[4], info[6]
  if name ~= me and name ~= '-' then
    if not gone(name) then
      present[#present + 1] = name
    elseif pending > 0 then
      absent[#absent + 1] = name
    elseif idle > 60000 then
      redis.call('XGROUP', 'DELCONSUMER', key, group, name)
    end
  end
end
return {claimed[1], taken, absent, present}
