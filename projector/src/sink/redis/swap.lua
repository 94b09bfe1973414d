-- Makes a generation's database the one that readers look at, unless it is. Runs there. KEYS: owner's marker.
-- ARGV: generation, the database that is looked at, the other one of the pair.
-- Answers 1 (swapped), 0 (it was so), or who owns the other one instead ('' = nobody).
if redis.call('GET', KEYS[1]) == ARGV[1] then return 0 end
redis.call('SELECT', ARGV[3])
local owner = redis.call('GET', KEYS[1])
if owner ~= ARGV[1] then return owner or '' end
redis.call('SWAPDB', ARGV[2], ARGV[3])
return 1
