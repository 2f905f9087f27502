import type { SpawnOptions } from './machine.ts'

/**
 * The ssh protocol carries a command as one string for the login shell. Every word is quoted, so that the shell
 * sees exactly the argv; `exec` makes the program take the shell's place and get its signals.
 */
export function commandLine(argv: readonly string[], { env, cwd, detach, noInput }: SpawnOptions = {}): string {
  const words = argv.map(quote)
  if (env && Object.keys(env).length > 0) {
    words.unshift('env', ...Object.entries(env).map(([name, value]) => quote(`${name}=${value}`)))
  }
  const go = cwd === undefined ? '' : `cd ${quote(cwd)} && `
  if (!detach) return `${go}exec ${words.join(' ')}${noInput ? ' </dev/null' : ''}`
  // Either way the first line of the output is the program's pid.
  const program = `${words.join(' ')} </dev/null >>${quote(detach.log)} 2>&1`
  return detach.stays ? `${go}{ setsid ${program} & echo $!; wait $!; }` : `${go}echo $$ && exec ${program}`
}

/** POSIX shell quoting: nothing has a meaning between single quotes but the next single quote. */
export function quote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}
