# Stages a site of the shell and the models: cmake -DPAGE=folder "-DMODELS=….safetensors;…" -DSITE=folder -P site.cmake
# Plain copies, so that the folder works on any static host. models.json lists the models.

file(GLOB_RECURSE wanted RELATIVE ${PAGE} ${PAGE}/*)
foreach(name IN LISTS wanted)
  cmake_path(GET name PARENT_PATH folder)
  file(MAKE_DIRECTORY ${SITE}/${folder})
  file(COPY_FILE ${PAGE}/${name} ${SITE}/${name} ONLY_IF_DIFFERENT)
endforeach()
file(MAKE_DIRECTORY ${SITE}/models)
set(list "")
foreach(model IN LISTS MODELS)
  cmake_path(GET model STEM LAST_ONLY name)
  file(SIZE ${model} bytes)
  file(COPY_FILE ${model} ${SITE}/models/${name}.safetensors ONLY_IF_DIFFERENT)
  list(APPEND wanted models/${name}.safetensors)
  list(APPEND list "  {\"name\": \"${name}\", \"file\": \"models/${name}.safetensors\", \"bytes\": ${bytes}}")
endforeach()
list(JOIN list ",\n" list)
file(CONFIGURE OUTPUT ${SITE}/models.json CONTENT "[\n${list}\n]\n")

file(GLOB_RECURSE present RELATIVE ${SITE} ${SITE}/*) # what an earlier build left there
list(REMOVE_ITEM present models.json ${wanted})
list(TRANSFORM present PREPEND ${SITE}/)
if(present)
  file(REMOVE ${present})
endif()
