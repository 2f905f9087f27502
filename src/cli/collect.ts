import type { Process } from '../machine/machine.ts'
import { exitStatus } from './attach.ts'
import type { Session } from './session.ts'

/** Keeps what a program writes, for `--json`; it reads our standard input if it is to. */
export async function collect(
  program: Process,
  { context }: Session,
  interactive: boolean,
): Promise<{ exitStatus: number; stdout: string; stderr: string }> {
  if (interactive) process.stdin.pipe(program.stdin)
  const output = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    program[name].setEncoding('utf8').on('data', (text: string) => {
      output[name] += text
    })
  }
  const aborted = new Promise<never>((_, reject) => {
    context.signal.addEventListener('abort', () => reject(context.signal.reason))
  })
  aborted.catch(() => {})
  try {
    const exit = await Promise.race([program.exited, aborted])
    return { exitStatus: exitStatus(exit), ...output }
  } finally {
    process.stdin.unpipe(program.stdin)
    process.stdin.pause()
  }
}
