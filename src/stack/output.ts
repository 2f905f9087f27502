import type { Duplex } from 'node:stream'
import { checkCapabilities } from '../engine/capability.ts'
import { engineFiles, guestPorts } from '../engine/qemu/argv.ts'
import type { Machine, Process, SpawnOptions } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { type GuestRecord, loadRecord } from './record.ts'

/**
 * Runs the guest's command without anybody watching: what it writes goes through a virtio port into a file where its
 * engine runs, its exit status into another, and then the guest ends.
 */
export async function runDetached(
  machine: Machine,
  argv: readonly string[],
  options: Pick<SpawnOptions, 'env' | 'cwd'> = {},
): Promise<void> {
  const script = `for port in ${guestPorts.output}; do output=$port; done
for port in ${guestPorts.exitStatus}; do status=$port; done
( "$@" > $output 2>&1 < /dev/null; echo $? > $status; sync; poweroff -f ) > /dev/null 2>&1 < /dev/null &`
  await run(machine, ['setsid', 'sh', '-c', script, 'sh', ...argv], { ...options, timeoutMs: 120_000 })
}

/** The exit status of an ended guest's command, as its engine left it on its host. */
export async function readExitStatus(context: Context, record: GuestRecord): Promise<number | undefined> {
  const machine = await engineMachine(context, record)
  const argv = ['cat', engineFiles(record.engineDir).exitStatus]
  const { stdout } = await run(machine, argv, { timeoutMs: 30_000, allowFailure: true })
  const status = Number.parseInt(stdout, 10)
  return Number.isInteger(status) && status >= 0 && status <= 255 ? status : undefined
}

export type LogKind = 'output' | 'kernel' | 'engine' | 'console'

/**
 * Streams a guest's log from the machine that its engine runs on. What the command of an ended stack has written was
 * handed on from level to level: the outermost guest's engine has it. Other logs of inner levels are gone with them.
 * `from` is how many bytes are left out.
 */
export async function openLog(
  context: Context,
  guest: GuestRecord,
  kind: LogKind,
  { follow = false, from = 0 } = {},
): Promise<Process> {
  const handedOn = guest.phase === 'exited' && guest.id !== guest.stack
  if (handedOn && kind !== 'output') {
    throw new NestvmError('NOT_RUNNING', `the log went with the machine that ${guest.path} ran in`)
  }
  const record = (handedOn && (await loadRecord(guest.stack))) || guest
  if (kind === 'output') checkCapabilities(record.engine, ['detached-command'], record.path)
  if (kind === 'console') checkCapabilities(record.engine, ['console'], record.path)
  const files = engineFiles(record.engineDir, record.socketDir)
  const path = { output: files.output, kernel: files.kernelLog, engine: files.engineLog, console: files.consoleLog }[
    kind
  ]
  const machine = await engineMachine(context, record)
  const argv = follow ? ['tail', '-n', '+1', '-f', path] : ['tail', '-c', `+${from + 1}`, path]
  return machine.spawn(argv, { signal: context.signal, noInput: true })
}

/** The machine that a guest's engine runs on. */
export async function engineMachine(context: Context, record: GuestRecord): Promise<Machine> {
  if (record.parent === undefined) return (await context.hostNamed(record.host)).machine
  const parent = await loadRecord(record.parent).catch(() => undefined)
  if (!parent) throw new NestvmError('NO_SUCH_MACHINE', `the machine that ${record.path} runs in is gone`)
  return context.guest(parent)
}

/** A two-way connection to a guest's console. Its engine serves one at a time; a second one waits. */
export async function openConsole(context: Context, record: GuestRecord): Promise<Duplex> {
  checkCapabilities(record.engine, ['console'], record.path)
  const machine = await engineMachine(context, record)
  const { consoleSocket } = engineFiles(record.engineDir, record.socketDir)
  return machine.connect({ unix: consoleSocket }, context.signal)
}
