-- Notes a parent's children. KEYS: the set, owner's marker. ARGV: generation, then the children's keys.
-- Answers 1, or the owner of the database when it isn't `generation` ('' = nobody).
local owner = redis.call('GET', KEYS[2])
if owner ~= ARGV[1] then return owner or '' end
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 0, ARGV[i]) end
return 1
