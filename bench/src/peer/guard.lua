-- Sets fields of one order unless the same event, or a later one, was here before.
-- KEYS: the order. ARGV: the event's sequence, then fields and values.
local seen = redis.call('HGET', KEYS[1], 'version')
if seen and tonumber(seen) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 2))
return 1
