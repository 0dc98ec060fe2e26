#include "image_file.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void refuse(const char *path, const char *why)
{
    fprintf(stderr, "%s: %s\n", path, why);
    exit(2);
}

/* A section's contents. */
static const void *section(const uint8_t *base, size_t file_bytes, const char *name, uint64_t *bytes)
{
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)base;
    const Elf64_Shdr *headers = (const Elf64_Shdr *)(base + elf->e_shoff);
    if (elf->e_shoff > file_bytes || elf->e_shstrndx >= elf->e_shnum ||
        elf->e_shnum * sizeof(*headers) > file_bytes - elf->e_shoff)
        return NULL;
    const char *names = (const char *)base + headers[elf->e_shstrndx].sh_offset;
    for (uint32_t i = 1; i < elf->e_shnum; i++) {
        const Elf64_Shdr *h = &headers[i];
        if (strcmp(names + h->sh_name, name) != 0 || h->sh_offset > file_bytes ||
            h->sh_size > file_bytes - h->sh_offset)
            continue;
        *bytes = h->sh_size;
        return base + h->sh_offset;
    }
    return NULL;
}

void image_file_open(struct image_file *file, const char *path)
{
    struct stat info;
    struct image_sections s = {0};
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0 || fstat(file->fd, &info) < 0)
        refuse(path, "can't be opened");
    size_t bytes = (size_t)info.st_size;
    const uint8_t *base = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file->fd, 0);
    if (base == MAP_FAILED || bytes < sizeof(Elf64_Ehdr) || memcmp(base, ELFMAG, SELFMAG) != 0)
        refuse(path, "is no ELF file");
    struct {
        const char *name;
        const void **data;
        uint64_t *bytes;
    } wanted[] = {
        {".sandstorm.header", &s.header, &s.header_bytes},
        {".sandstorm.strings", &s.strings, &s.strings_bytes},
        {".sandstorm.hosts", &s.hosts, &s.hosts_bytes},
        {".sandstorm.sites", &s.sites, &s.sites_bytes},
        {".sandstorm.buckets", &s.buckets, &s.buckets_bytes},
        {".sandstorm.routes", &s.routes, &s.routes_bytes},
        {".sandstorm.variants", &s.variants, &s.variants_bytes},
        {".sandstorm.responses", &s.responses, &s.responses_bytes},
        {".sandstorm.patches", &s.patches, &s.patches_bytes},
        {".sandstorm.errors", &s.errors, &s.errors_bytes},
        {".sandstorm.frames", &s.frames, &s.frames_bytes},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        if ((*wanted[i].data = section(base, bytes, wanted[i].name, wanted[i].bytes)) == NULL)
            refuse(path, "is no packet image");
    s.slots = section(base, bytes, ".sandstorm.slots", &s.slots_bytes);
    uint32_t *work = malloc(s.frames_bytes / sizeof(struct ssi_frame) * sizeof(*work) + sizeof(*work));
    if (s.slots == NULL || work == NULL || image_open(&file->image, &s, work) != 0)
        refuse(path, "is damaged, or of another version");
    free(work);
    file->slots_offset = (uint64_t)(s.slots - base);
}
