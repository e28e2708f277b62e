-- What is in a stream; changes nothing. KEYS: stream, delayed. ARGV: group, channel of life without the id, ms after which
-- a consumer that does not read is deaf. Answers {length, with consumers, resting, ms of the oldest or -1, consumers,
-- those among them that are deaf, those that live}. What was given back waits at the consumer '-'.
local length, resting = redis.call('XLEN', KEYS[1]), redis.call('ZCARD', KEYS[2])
local first, oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1], -1
if first then
  local time = redis.call('TIME')
  oldest = math.max(0, time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(string.match(first[1], '^%d+')))
end
local held, consumers, deaf, living = 0, 0, 0, 0
local infos = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
for _, info in ipairs(infos.err and {} or infos) do
  local name, pending, idle = info[2], info[4], info[6]
  if name ~= '-' then
    held = held + pending
    local lives = redis.call('PUBSUB', 'NUMSUB', ARGV[2] .. name)[2] > 0
    if lives or pending > 0 then
      consumers = consumers + 1
      living = living + (lives and 1 or 0)
      if not lives or idle > tonumber(ARGV[3]) then
        deaf = deaf + 1
      end
    end
  end
end
return {length, held, resting, oldest, consumers, deaf, living}
