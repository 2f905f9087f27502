import type { Process } from '../machine/machine.ts'
import { exitStatus } from './attach.ts'
import type { Session } from './session.ts'

/** Keeps what a program writes, for `--json`. */
export async function collect(
  program: Process,
  { context }: Session,
): Promise<{ exitStatus: number; stdout: string; stderr: string }> {
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
  const exit = await Promise.race([program.exited, aborted])
  return { exitStatus: exitStatus(exit), ...output }
}
