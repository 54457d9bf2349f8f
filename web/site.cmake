# Before `bitbrush site` brings a build's own site up to date: cmake -DPAGE=folder -DSITE=folder -P site.cmake
# Removes from it what an earlier state of the page had; the command touches nothing but what it wrote itself.

if(NOT EXISTS ${SITE}/site.json) # from before there was one
  file(REMOVE_RECURSE ${SITE})
endif()
file(GLOB_RECURSE page RELATIVE ${PAGE} ${PAGE}/*)
list(TRANSFORM page REPLACE "^hosts/" "")
file(GLOB_RECURSE stale RELATIVE ${SITE} ${SITE}/*)
list(REMOVE_ITEM stale site.json ${page})
list(FILTER stale EXCLUDE REGEX "^models/")
foreach(name IN LISTS stale)
  file(REMOVE ${SITE}/${name})
endforeach()
