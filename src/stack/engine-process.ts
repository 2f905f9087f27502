import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { bochsFiles } from '../engine/bochs/files.ts'
import { engineFiles } from '../engine/qemu/argv.ts'
import { run } from '../machine/run.ts'
import { passtFiles } from '../network/passt.ts'
import { isAlive, type ProcessIdentity, processIdentity } from '../store/process.ts'
import type { Context } from './context.ts'
import { thisHost } from './host.ts'
import type { GuestRecord } from './record.ts'

// The processes of level 1 engines: on this host, and on hosts reached over ssh.

/** Whether a level 1 guest's engine is alive. Throws when its host cannot be reached. */
export async function engineAlive(context: Context, record: GuestRecord): Promise<boolean> {
  if (record.host === thisHost) return record.engineProcess !== undefined && isAlive(record.engineProcess)
  if (record.enginePid === undefined) return false
  const { machine } = await context.hostNamed(record.host)
  const argv = [
    'grep',
    '-qs',
    onCommandLine(engineFiles(record.engineDir).pidFile),
    `/proc/${record.enginePid}/cmdline`,
  ]
  return (await run(machine, argv, { timeoutMs: 30_000, allowFailure: true })).exit.code === 0
}

/**
 * Ends a level 1 guest's QEMU: the one in the record, and one that was started but not yet recorded; and what waits to
 * lead it out. On a host that is reached over ssh its files go too. Throws when that cannot be reached.
 */
export async function endEngine(context: Context, record: GuestRecord): Promise<void> {
  if (record.host === thisHost) {
    if (record.engineProcess) await endProcess(record.engineProcess)
    return endEnginesHere(record.engineDir)
  }
  const { machine } = await context.hostNamed(record.host)
  const argv = ['sh', '-c', endScript, 'sh', record.engineDir, ...marks(record.engineDir).map(onCommandLine)]
  await run(machine, argv, { timeoutMs: 60_000 })
}

/** Ends whatever QEMU of this host has its files in a directory, and what serves it. */
export async function endEnginesHere(engineDir: string): Promise<void> {
  for (const engine of await enginesOf(engineDir)) await endProcess(engine)
}

/** Files that engines and passt name on their command lines, and no two have the same. */
function marks(engineDir: string): string[] {
  const { configuration } = bochsFiles(engineDir, engineDir)
  return [engineFiles(engineDir).pidFile, passtFiles(engineDir, engineDir).pidFile, configuration]
}

/** As a pattern that does not find itself. Where it does not begin one, `^` is like any letter. */
function onCommandLine(path: string): string {
  return path.replaceAll(/[.[\]*$\\]|\w$/g, '[$&]')
}

/** Where there is no sleep for less than a second, a second it is. */
const endScript = `dir=$1 qemu=$2 passt=$3 bochs=$4
engines() { grep -ls -e "$qemu" -e "$passt" -e "$bochs" /proc/[0-9]*/cmdline | cut -d/ -f3; }
for signal in TERM KILL; do
  n=0
  while pids=$(engines); [ "$pids" ] && [ $n -lt 30 ]; do
    [ $n -gt 0 ] || kill -s $signal $pids 2> /dev/null
    n=$((n + 1)); sleep 0.1 2> /dev/null || sleep 1
  done
done
[ -z "$(engines)" ] || { echo "the engine does not end" >&2; exit 1; }
rm -rf "$dir"`

/** At once: what guests have written is the host's by then, and what engines leave is removed with their directories. */
async function endProcess(identity: ProcessIdentity): Promise<void> {
  const end = performance.now() + 10_000
  if (isAlive(identity)) process.kill(identity.pid, 'SIGKILL')
  while (isAlive(identity) && performance.now() < end) await sleep(3)
}

async function enginesOf(engineDir: string): Promise<ProcessIdentity[]> {
  // Firecracker writes no pid file, but names its log.
  const paths = [...marks(engineDir), engineFiles(engineDir).engineLog]
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const engines = await Promise.all(
    pids.map(async (pid) => {
      const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
      const words = line.split('\0')
      return paths.some((path) => words.includes(path)) ? processIdentity(Number(pid)) : undefined
    }),
  )
  return engines.filter((engine) => engine !== undefined)
}
