# Toolchain of the command line for WASI: cmake -B build/wasi --toolchain wasm/wasi.cmake
# By Debian's clang-19, lld-19, wasi-libc and libclang-rt-19-dev-wasm32. Headers of the host lie next to those of
# wasi-libc, so only the latter's folder is searched; and wasm-ld is called directly, because clang's driver runs
# whatever wasm-opt is on the PATH.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
set(WASI TRUE)
set(CMAKE_C_COMPILER clang-19)
set(CMAKE_C_COMPILER_TARGET wasm32-wasi)
set(CMAKE_AR ar)
set(CMAKE_RANLIB true) # an index made by the host's ar would not know these objects; wasm-ld needs none
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
set(CMAKE_C_FLAGS_INIT
  "-nostdlibinc -isystem /usr/include/wasm32-wasi -mbulk-memory -msign-ext -mnontrapping-fptoint")

set(folder /usr/lib/wasm32-wasi)
set(builtins /usr/lib/llvm-19/lib/clang/19/lib/wasi/libclang_rt.builtins-wasm32.a)
string(CONCAT CMAKE_C_LINK_EXECUTABLE "wasm-ld-19 --strip-debug --gc-sections --stack-first -z stack-size=8388608 "
  "${folder}/crt1-command.o <OBJECTS> -o <TARGET> -L${folder} <LINK_LIBRARIES> -lc ${builtins}")
