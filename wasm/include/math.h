/* stb_image_write includes <math.h> for formats that are left out. */
