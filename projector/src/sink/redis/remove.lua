-- Removes keys of a generation as long as the database is its own. KEYS: owner's marker, then keys. ARGV: generation.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
