/* Opens an image from its file, for programs without Python. The file is mapped and stays so. */
#ifndef BENCH_IMAGE_FILE_H
#define BENCH_IMAGE_FILE_H

#include "image/image.h"

struct image_file {
    int fd;
    uint64_t slots_offset; /* in the file */
    struct image image;
};

/* Ends the program with a message if that can't be. */
void image_file_open(struct image_file *file, const char *path);

#endif
