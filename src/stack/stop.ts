import { readdir, readFile, rm } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { stopContainer } from '../container/machine.ts'
import { engineFiles } from '../engine/qemu/argv.ts'
import { run } from '../machine/run.ts'
import { passtFiles } from '../network/passt.ts'
import { machinePaths, socketDir } from '../store/paths.ts'
import { isAlive, type ProcessIdentity, processIdentity } from '../store/process.ts'
import { removeTree } from '../store/write.ts'
import type { Context } from './context.ts'
import { unforwardSsh, unpublishPorts, unrouteThrough } from './forward.ts'
import { engineMachine } from './output.ts'
import { answerLimitMs } from './plan.ts'
import { descendants, type GuestRecord, lineage, listRecords, loadRecord } from './record.ts'
import { endVolumeServer } from './volume.ts'

/** Shuts down a guest, and first all that run in it, from the inside out. Their records go too. */
export async function stop(context: Context, record: GuestRecord): Promise<void> {
  const inner = descendants(record, await listRecords())
  const levels = [...new Set(inner.map((guest) => guest.level))].sort((a, b) => b - a)
  for (const level of levels) {
    const guests = inner.filter((guest) => guest.level === level)
    await Promise.all(guests.map((guest) => stopOne(context, guest)))
  }
  await stopOne(context, record)
}

async function stopOne(context: Context, record: GuestRecord): Promise<void> {
  if (record.phase === 'running' && (await runs(context, record))) await powerOff(context, record)
  await destroy(context, record)
}

/** Asks the guest to end, and waits a bounded time until its engine has. */
async function powerOff(context: Context, record: GuestRecord): Promise<void> {
  const limitMs = answerLimitMs(record.level)
  try {
    const guest = await context.guest(record)
    const { container } = record
    if (container) await stopContainer(guest, container.config.stopSignal ?? 'SIGTERM', limitMs)
    // The connection breaks while the guest goes down, so the command is not waited for.
    await guest.spawn(['sh', '-c', 'sync; (sleep 0.1; poweroff -f) >/dev/null 2>&1 </dev/null &'])
    const end = performance.now() + limitMs
    while (performance.now() < end && (await runs(context, record))) await sleep(50)
  } catch {
    // What does not answer is ended the hard way.
  } finally {
    context.forget(record)
  }
}

/** Whether a guest's engine is alive, as far as can be seen. */
export async function runs(context: Context, record: GuestRecord): Promise<boolean> {
  if (record.parent === undefined) return record.engineProcess !== undefined && isAlive(record.engineProcess)
  const base = await loadRecord(record.base).catch(() => undefined)
  if (!base?.engineProcess || !isAlive(base.engineProcess) || record.enginePid === undefined) return false
  try {
    const machine = await engineMachine(context, record)
    const { exit } = await run(machine, ['test', '-d', `/proc/${record.enginePid}`], {
      timeoutMs: answerLimitMs(record.level - 1),
      allowFailure: true,
    })
    return exit.code === 0
  } catch {
    return false
  }
}

/** Ends a guest at once, with all that run in it, and removes every trace of it. Never fails for what is gone already. */
export async function destroy(context: Context, record: GuestRecord): Promise<void> {
  const records = await listRecords()
  for (const guest of descendants(record, records)) await forgetGuest(context, guest)
  if (record.parent === undefined) await killEngine(record)
  else await removeNested(context, record, records).catch(() => {})
  await forgetGuest(context, record)
}

async function forgetGuest(context: Context, record: GuestRecord): Promise<void> {
  context.forget(record)
  await rm(record.sshSocket, { force: true })
  if (record.parent === undefined) await rm(socketDir(record.id), { recursive: true, force: true })
  await endVolumeServer(record)
  if (record.scratch) await rm(record.scratch, { force: true })
  await removeTree(machinePaths(record.id).dir)
}

const stopScript = `dir=$1 tap=$2
pid=$(cat $dir/engine.pid 2>/dev/null)
[ "$pid" ] && kill -9 $pid 2>/dev/null
n=0; while [ "$pid" ] && [ -d /proc/$pid ] && [ $n -lt 500 ]; do n=$((n + 1)); usleep 20000; done
tunctl -d $tap >/dev/null 2>&1
rm -rf $dir`

async function removeNested(context: Context, record: GuestRecord, records: readonly GuestRecord[]): Promise<void> {
  const base = records.find((other) => other.id === record.base)
  const parent = records.find((other) => other.id === record.parent)
  if (!parent || !base?.engineProcess || !isAlive(base.engineProcess)) return
  // Cleaning up goes on after Ctrl-C, on connections of its own limits.
  const ancestors = lineage(parent, records).slice(0, -1)
  await Promise.allSettled([
    context
      .guest(parent)
      .then((machine) =>
        run(machine, ['sh', '-c', stopScript, 'sh', record.engineDir, `${record.tap}`], { timeoutMs: 60_000 }),
      ),
    unforwardSsh(context, base, record),
    unpublishPorts(context, base, record),
    ...ancestors.map((hypervisor) => unrouteThrough(context, hypervisor, record.address)),
  ])
}

/** Ends a level 1 guest's QEMU: the one in the record, and one that was started but not yet recorded. */
async function killEngine(record: GuestRecord): Promise<void> {
  if (record.engineProcess) await endProcess(record.engineProcess)
  await killEngines(record.engineDir)
}

/** Ends whatever QEMU of this host has its files in a directory, and what serves it. */
export async function killEngines(engineDir: string): Promise<void> {
  for (const engine of await enginesOf(engineDir)) await endProcess(engine)
}

async function endProcess(identity: ProcessIdentity): Promise<void> {
  for (const [signal, waitMs] of [
    ['SIGTERM', 1500],
    ['SIGKILL', 10_000],
  ] as const) {
    const end = performance.now() + waitMs
    if (isAlive(identity)) process.kill(identity.pid, signal)
    while (isAlive(identity) && performance.now() < end) await sleep(10)
  }
}

/** A QEMU names its pid file on its command line, and no two have the same; so does its way out. */
async function enginesOf(engineDir: string): Promise<ProcessIdentity[]> {
  const pidFiles = [engineFiles(engineDir).pidFile, passtFiles(engineDir, engineDir).pidFile]
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const engines = await Promise.all(
    pids.map(async (pid) => {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      const words = line.split('\0')
      return pidFiles.some((path) => words.includes(path)) ? processIdentity(Number(pid)) : undefined
    }),
  )
  return engines.filter((engine) => engine !== undefined)
}
