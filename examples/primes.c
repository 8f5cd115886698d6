/* Counts the primes of one range of 1,000,000 numbers: the task's number says which. Built for WebAssembly by primes.py. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RANGE 1000000L

int main(void) {
  const char *index = getenv("IDLE_TASK_INDEX");
  long first = (index ? atol(index) : 0) * RANGE, count = 0;
  char *composite = calloc(RANGE, 1);
  if (composite == NULL) return fprintf(stderr, "no memory\n"), 1;
  for (long factor = 2; factor * factor < first + RANGE; factor++) {
    long multiple = (first + factor - 1) / factor * factor;
    if (multiple < factor * factor) multiple = factor * factor;
    for (; multiple < first + RANGE; multiple += factor) composite[multiple - first] = 1;
  }
  for (long number = first < 2 ? 2 : first; number < first + RANGE; number++) count += !composite[number - first];
  printf("%ld\n", count);
  return 0;
}
