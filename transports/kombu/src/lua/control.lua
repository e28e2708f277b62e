-- A control message to all instances of a service. KEYS: who hears. ARGV: message.
local lists = redis.call('SMEMBERS', KEYS[1])
for _, list in ipairs(lists) do
  redis.call('LPUSH', list, ARGV[1])
end
return #lists
