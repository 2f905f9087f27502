/* What no program in the guests does. exercise lock FILE SECONDS | exercise map FILE */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

/* Locks the first bytes with fcntl(2) and keeps them for a while. */
static int lock(const char *path, int seconds) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
  int fd = open(path, O_RDWR | O_CREAT, 0644);
  if (fd < 0 || fcntl(fd, F_SETLK, &range) != 0) return puts("busy"), 1;
  puts("taken");
  fflush(stdout);
  sleep(seconds);
  return 0;
}

/* Writes through a shared mapping, also when the file has no name any more. */
static int map(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT, 0644);
  if (fd < 0 || ftruncate(fd, 8192) != 0) return 1;
  char *bytes = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (bytes == MAP_FAILED) return 2;
  strcpy(bytes + 5000, "mapped");
  if (msync(bytes, 8192, MS_SYNC) != 0) return 3;
  if (pwrite(fd, "M", 1, 5000) != 1 || bytes[5000] != 'M') return 4;
  char other[] = "exercise";
  if (link(path, "linked") != 0 || unlink(path) != 0) return 5;
  memcpy(bytes, other, sizeof other);
  return msync(bytes, 8192, MS_SYNC) == 0 ? 0 : 6;
}

int main(int count, char **words) {
  if (count == 4 && strcmp(words[1], "lock") == 0) return lock(words[2], atoi(words[3]));
  return count == 3 && strcmp(words[1], "map") == 0 ? map(words[2]) : 2;
}
