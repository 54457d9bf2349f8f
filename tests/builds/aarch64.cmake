# Toolchain of the build for 64-bit ARM on another machine: Debian's gcc-aarch64-linux-gnu and libc6-dev-arm64-cross;
# what it makes runs under qemu-user (aarch64.test.mjs).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
