-- Says that an instance of a service has gone. KEYS: live. ARGV: channel of presence. Answers how many are left.
local left = redis.call('PUBSUB', 'NUMSUB', ARGV[1])[2]
if left == 0 then
  redis.call('DEL', KEYS[1])
end
return left
