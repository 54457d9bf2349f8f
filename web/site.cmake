# Stages the page: cmake -DSOURCE=repo "-DMODULES=….wasm;…" -DSITE=folder -P site.cmake
# Plain copies, so that the folder works on any static host. models.json lists the packed models found.

function(stage folder)
  file(MAKE_DIRECTORY ${SITE}/${folder})
  if(folder) # what an earlier build left there and nobody asks for any more
    list(TRANSFORM ARGN REPLACE ".*/" "" OUTPUT_VARIABLE wanted)
    file(GLOB present RELATIVE ${SITE}/${folder} ${SITE}/${folder}/*)
    foreach(name IN LISTS present)
      list(FIND wanted "${name}" at)
      if(at LESS 0)
        file(REMOVE_RECURSE ${SITE}/${folder}/${name})
      endif()
    endforeach()
  endif()
  foreach(from IN LISTS ARGN)
    cmake_path(GET from FILENAME name)
    file(COPY_FILE ${from} ${SITE}/${folder}/${name} ONLY_IF_DIFFERENT)
  endforeach()
endfunction()

file(GLOB scripts ${SOURCE}/wasm/js/*.js ${SOURCE}/wasm/js/*.d.ts ${SOURCE}/wasm/js/package.json)
file(GLOB models ${SOURCE}/models/*.safetensors)
list(FILTER models EXCLUDE REGEX "/tiny[^/]*$") # made for tests, draws nothing
list(SORT models)
stage("" ${SOURCE}/web/index.html ${SOURCE}/web/main.js ${SOURCE}/web/style.css ${MODULES})
stage(js ${scripts})
stage(models ${models})

set(list "")
foreach(model IN LISTS models)
  cmake_path(GET model STEM LAST_ONLY name)
  file(SIZE ${model} bytes)
  list(APPEND list "  {\"name\": \"${name}\", \"file\": \"models/${name}.safetensors\", \"bytes\": ${bytes}}")
endforeach()
list(JOIN list ",\n" list)
file(CONFIGURE OUTPUT ${SITE}/models.json CONTENT "[\n${list}\n]\n")
