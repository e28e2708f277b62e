-- Takes messages for a consumer, and notes them as Kombu does. KEYS: unacked, its index, what the process holds, dead
-- letters, dead places, then the lists of the queue, the most urgent first. ARGV: most, tag, end of a note (`,"",QUEUE]`),
-- the queue's name, what stands before and behind bytes that are no message, their origin, the most of these bytes.
-- Answers {list, message, ...}; the first is noted under TAG.1, the next under TAG.2 and so on.
local taken, time = {}, redis.call('TIME')
local now, number, gone = time[1] .. '.' .. string.format('%06d', time[2]), 0, 0
for list = 6, #KEYS do
  while number + gone < tonumber(ARGV[1]) do
    local raw = redis.call('RPOP', KEYS[list])
    if not raw then break end
    local ok, message = pcall(cjson.decode, raw)
    if ok and type(message) == 'table' and type(message.properties) == 'table' then
      number = number + 1
      local tag = ARGV[2] .. '.' .. number
      redis.call('HSET', KEYS[1], tag, '[' .. raw .. ARGV[3])
      redis.call('ZADD', KEYS[2], now, tag)
      redis.call('HSET', KEYS[3], tag, ARGV[4])
      taken[#taken + 1] = list - 5
      taken[#taken + 1] = raw
    elseif ARGV[7] ~= '' then
      -- A Kombu program that came upon it would die of it.
      gone = gone + 1
      local shown = string.gsub(string.sub(raw, 1, tonumber(ARGV[8])), '.', function(c) return string.format('%02x', string.byte(c)) end)
      redis.call('LPUSH', KEYS[4], ARGV[5] .. shown .. ARGV[6])
      redis.call('SADD', KEYS[5], ARGV[7])
    else
      gone = gone + 1
    end
  end
end
return {gone, taken}
