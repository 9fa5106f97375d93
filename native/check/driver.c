/* For compilers without libFuzzer: feeds the seeds and simple mutations of them. driver RUNS SEED-FILE… */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 88172645463325252ULL;

static uint64_t next(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

int main(int argc, char **argv)
{
	static uint8_t seed[1 << 16], input[1 << 16];
	static const uint64_t edges[] = {0, 1, 7, 8, 9, 0x7fffffff, 0x80000000, 0x7fffffffffffffff, 0x8000000000000000, ~0ULL};
	long runs = argc > 1 ? atol(argv[1]) : 0;

	for (int i = 2; i < argc; i++) {
		FILE *file = fopen(argv[i], "rb");
		size_t size = file == NULL ? 0 : fread(seed, 1, sizeof(seed), file);

		if (file != NULL)
			fclose(file);
		LLVMFuzzerTestOneInput(seed, size);
		for (long run = 0; size >= 16 && run < runs / (argc - 2); run++) {
			memcpy(input, seed, size);
			for (uint64_t changes = next() % 4 + 1; changes > 0; changes--) {
				size_t at = next() % (size / 8) * 8;

				if (next() % 2 == 0)
					input[next() % size] = (uint8_t)next();
				else
					memcpy(input + at, &edges[next() % (sizeof(edges) / 8)], 8);
			}
			LLVMFuzzerTestOneInput(input, next() % 4 == 0 ? next() % size : size);
		}
	}
	return 0;
}
