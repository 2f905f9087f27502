import { randomBytes } from 'node:crypto'
import type { ImageConfig } from '../image/config.ts'
import type { Exit, Machine, Process, SpawnOptions } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { type ConfigRequest, ociConfig } from './config.ts'
import { healthLoop } from './health.ts'
import { ociProcess, type ProcessDefaults, type ProcessRequest } from './process.ts'

/** The one container of its guest, and where its files are there. */
const name = 'c'
const dir = '/run/nestvm/container'
const crun = `crun --cgroup-manager=cgroupfs --log-level=error`

export interface StartRequest extends ConfigRequest {
  healthcheck: ImageConfig['healthcheck']
  defaults: ProcessDefaults
}

/**
 * Starts the container with its first process, whose end is the container's. The streams, the terminal and the signals
 * of the process are those of crun. A program that is not there, or is none, is status 127 or 126, as in a shell; what
 * else crun cannot do is 125.
 */
export async function startContainer(
  guest: Machine,
  request: StartRequest,
  options: Pick<SpawnOptions, 'tty' | 'noInput' | 'signal'>,
): Promise<Process> {
  const config = JSON.stringify(ociConfig(request))
  const log = `${dir}/run.log`
  const health = healthOf(request)
  const script = `${startScript}exec ${runCommand}`
  const process = await guest.spawn(['sh', '-c', script, 'sh', config, log, health], options)
  return explained(guest, process, log)
}

/** The command that does the same for whoever runs it in the guest, with nobody to send it signals. */
export function startArgv(request: StartRequest): string[] {
  return ['sh', '-c', detachedScript, 'sh', JSON.stringify(ociConfig(request)), `${dir}/run.log`, healthOf(request)]
}

/** The guest's start script makes the file system ready; reading from a pipe that nobody writes to is a sleep. */
const startScript = `if [ ! -e ${dir}/ready ]; then
  n=0; mkfifo /run/nestvm/wait 2>/dev/null; exec 4<> /run/nestvm/wait
  while [ ! -e ${dir}/ready ] && [ $n -lt 6000 ]; do n=$((n + 1)); read -t 0.02 x <&4; done
  exec 4<&-
fi
cd ${dir} || exit 125
printf %s "$1" > config.json
eval "$3"
`

/** The guest's root is an initramfs, which cannot be pivoted away from. */
const runCommand = `${crun} --log "file:$2" run --no-pivot --bundle . ${name}`

const detachedScript = `${startScript}${runCommand}
status=$?
if [ -s "$2" ]; then
  case $(cat "$2") in *'not found'*) exit 127 ;; *'not executable'*) exit 126 ;; *) exit 125 ;; esac
fi
exit $status`

/** A detached container may be about to start. */
const execScript = `n=0; while [ ! -e /run/crun/${name}/status ] && [ $n -lt 500 ]; do n=$((n + 1)); usleep 20000; done
exec ${crun} --log "file:$2" exec --process /dev/fd/3 ${name} 3<<END
$1
END`

function healthOf({ healthcheck, defaults }: StartRequest): string {
  return healthLoop(healthcheck, defaults, execScript) ?? ''
}

/** Sends the container's first process a signal, and waits a bounded time for its end. */
export async function stopContainer(guest: Machine, stopSignal: string, timeoutMs: number): Promise<void> {
  const script = `${crun} kill ${name} "$1" 2>/dev/null || exit 0
n=0; while [ -e /run/crun/${name}/status ] && [ $n -lt 100 ]; do n=$((n + 1)); usleep 100000; done`
  await run(guest, ['sh', '-c', script, 'sh', stopSignal], { timeoutMs, allowFailure: true })
}

/** The root directory of the container's processes as the guest sees it, with all that is mounted there. */
export async function containerRoot(guest: Machine): Promise<string> {
  const script = `sed -n 's/.*"pid"[^0-9]*\\([0-9]*\\).*/\\1/p' /run/crun/${name}/status | head -n 1`
  const { stdout } = await run(guest, ['sh', '-c', script], { timeoutMs: 60_000 })
  return `/proc/${stdout.trim()}/root`
}

/** crun's own failures are status 1 or 255, as a command's may be: its log tells them apart. */
function explained(guest: Machine, process: Process, log: string): Process {
  const exited = process.exited.then(async (exit): Promise<Exit> => {
    if (exit.code !== 1 && exit.code !== 255) return exit
    const said = await readLog(guest, log)
    return said === '' ? exit : { code: statusOf(said), signal: null }
  })
  const { pid, stdin, stdout, stderr } = process
  return {
    ...{ pid, stdin, stdout, stderr, exited },
    kill: (signal) => process.kill(signal),
    resize: (size) => process.resize(size),
  }
}

async function readLog(guest: Machine, log: string): Promise<string> {
  const { stdout } = await run(guest, ['cat', log], { timeoutMs: 60_000, allowFailure: true })
  return stdout.trim()
}

function statusOf(said: string): number {
  if (said.includes('not found')) return 127
  return said.includes('not executable') ? 126 : 125
}

/** Runs a further process in a running guest's container, beside its first one. */
export async function spawnInContainer(
  guest: Machine,
  defaults: ProcessDefaults,
  argv: readonly string[],
  { env, cwd, user, tty, ...streams }: Omit<ProcessRequest, 'tty'> & Pick<SpawnOptions, 'tty' | 'noInput' | 'signal'>,
): Promise<Process> {
  const process = ociProcess(argv, { env, cwd, user, tty }, defaults)
  const log = `${dir}/${randomBytes(6).toString('hex')}.log`
  const argvInGuest = ['sh', '-c', execScript, 'sh', JSON.stringify(process), log]
  return explained(guest, await guest.spawn(argvInGuest, { ...streams, tty }), log)
}
