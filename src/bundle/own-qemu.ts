import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { architecture } from './architecture.ts'
import type { Bundle } from './bundle.ts'

/** `-run-with exit-with-parent`, by which a guest ends with the nestvm that it lives for. */
const oldest = [10, 2] as const

/** The bundle, but with another QEMU, of this machine, for the outermost level. Throws `BAD_QEMU`. */
export async function withQemu(bundle: Bundle, machine: Machine, program: string): Promise<Bundle> {
  const refuse = (why: string) =>
    new NestvmError('BAD_QEMU', `${program} cannot run guests: ${why}`, {
      hint: `name a ${architecture(bundle.arch).emulator} of version ${oldest.join('.')} or newer, or leave --qemu and NESTVM_QEMU out`,
      details: { program, machine: machine.name },
    })
  const said = await run(machine, [program, '--version'], { timeoutMs: 30_000 }).catch((error: unknown) => {
    throw refuse(error instanceof Error ? error.message : String(error))
  })
  const [, major, minor] = /^QEMU emulator version (\d+)\.(\d+)/.exec(said.stdout)?.map(Number) ?? []
  if (major === undefined || minor === undefined) throw refuse('it is not QEMU')
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) throw refuse(`its version is ${major}.${minor}`)
  return { ...bundle, tools: { ...bundle.tools, qemuArgv: () => [program] } }
}
