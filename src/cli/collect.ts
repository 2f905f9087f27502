import type { Process } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import { exitStatus } from './attach.ts'
import type { Session } from './session.ts'

/** One JSON document is to hold it, and what runs in a guest is not trusted. */
const maxOutput = 64 << 20

/** Keeps what a program writes, for `--json`; it reads our standard input if it is to. */
export async function collect(
  program: Process,
  { context }: Session,
  interactive: boolean,
): Promise<{ exitStatus: number; stdout: string; stderr: string }> {
  if (interactive) process.stdin.pipe(program.stdin)
  const output = { stdout: '', stderr: '' }
  const aborted = new Promise<never>((_, reject) => {
    context.signal.addEventListener('abort', () => reject(context.signal.reason))
    for (const name of ['stdout', 'stderr'] as const) {
      program[name].setEncoding('utf8').on('data', (text: string) => {
        if (output[name].length < maxOutput) output[name] += text
        else reject(new NestvmError('TOO_MUCH_OUTPUT', `the command wrote more than ${maxOutput >> 20} MiB`))
      })
    }
  })
  aborted.catch(() => {})
  try {
    const exit = await Promise.race([program.exited, aborted])
    return { exitStatus: exitStatus(exit), ...output }
  } catch (error) {
    program.kill()
    throw error
  } finally {
    process.stdin.unpipe(program.stdin)
    process.stdin.pause()
  }
}
