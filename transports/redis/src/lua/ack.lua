-- Forgets entries. KEYS: stream. ARGV: group, ids.
local gone = redis.call('XACK', KEYS[1], unpack(ARGV))
redis.call('XDEL', KEYS[1], unpack(ARGV, 2))
return gone
