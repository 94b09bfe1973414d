-- Brings one document up to date if it is at the very version that the changes are from. KEYS: document, owner's marker.
-- ARGV: generation, that version, how many fields are gone, '_seq', the new version, then fields and values, then what is gone.
-- Answers as write.lua, or 2: what is there, if anything, is older than that version, so all of the document is needed.
local owner = redis.call('GET', KEYS[2])
if owner ~= ARGV[1] then return owner or '' end
local stored, since = redis.call('HGET', KEYS[1], '_seq'), ARGV[2]
if stored ~= since then
  -- As text, by length first, as in write.lua.
  local older = not stored or #stored < #since or (#stored == #since and stored < since)
  return older and 2 or 0
end
local last = #ARGV - tonumber(ARGV[3])
redis.call('HSET', KEYS[1], unpack(ARGV, 4, last))
if last < #ARGV then redis.call('HDEL', KEYS[1], unpack(ARGV, last + 1)) end
return 1
