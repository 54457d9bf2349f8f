# Stages the shell of every site: cmake -DSOURCE=repo "-DMODULES=….wasm;…" -DPAGE=folder -P page.cmake
# Copies of web/, of the library and of the modules; the folder then holds these and nothing else. Only sw.js and
# index.html are told the version.

include(${CMAKE_CURRENT_LIST_DIR}/script.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/worker.cmake)
file(MAKE_DIRECTORY ${PAGE})
set(staged "")

# stage(FOLDER FILE...): copies them there, those that changed.
function(stage folder)
  foreach(from IN LISTS ARGN)
    cmake_path(GET from FILENAME name)
    cmake_path(APPEND folder ${name} OUTPUT_VARIABLE to)
    cmake_path(GET to PARENT_PATH parent)
    file(MAKE_DIRECTORY ${PAGE}/${parent})
    if(name MATCHES "\\.js$")
      copy_script(${from} ${PAGE}/${to})
    else()
      file(COPY_FILE ${from} ${PAGE}/${to} ONLY_IF_DIFFERENT)
    endif()
    list(APPEND staged ${to})
  endforeach()
  set(staged ${staged} PARENT_SCOPE)
endfunction()

file(GLOB shell ${SOURCE}/web/*.css ${SOURCE}/web/*.js ${SOURCE}/web/*.svg ${SOURCE}/web/*.png
  ${SOURCE}/web/*.webmanifest)
list(REMOVE_ITEM shell ${SOURCE}/web/sw.js)
file(GLOB page ${SOURCE}/web/page/*.js)
file(GLOB hosts ${SOURCE}/web/hosts/*)
file(GLOB library ${SOURCE}/wasm/js/*.js ${SOURCE}/wasm/js/*.d.ts ${SOURCE}/wasm/js/package.json)
stage("" ${shell} ${MODULES})
stage(page ${page})
stage(hosts ${hosts})
stage(js ${library})
set(kept ${staged})
list(FILTER kept EXCLUDE REGEX "^hosts/|^js/(node|site)|\\.d\\.ts$|\\.json$") # what no page asks for
write_worker(${SOURCE} ${PAGE} ${kept})
list(APPEND staged sw.js index.html)

# What an earlier build left there and nobody asks for any more.
file(GLOB_RECURSE present RELATIVE ${PAGE} ${PAGE}/*)
list(REMOVE_ITEM present ${staged})
list(TRANSFORM present PREPEND ${PAGE}/)
if(present)
  file(REMOVE ${present})
endif()
