/* The sanitized monitor has no stderr: what is found goes to files. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *__asan_default_options(void)
{
	return "detect_leaks=0:abort_on_error=1:log_path=" LOG_PATH;
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1:log_path=" LOG_PATH;
}
