import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { guestUp, hypervisorReady, largeMtu } from '../bundle/guest/scripts.ts'
import { type EngineFiles, guestPorts, type QemuSpec, qemuArguments } from '../engine/qemu/argv.ts'
import { eventsInput } from '../engine/qemu/events.ts'
import type { Machine, Process } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { saysFull } from '../store/write.ts'
import { thisHost } from './host.ts'
import type { Place } from './place.ts'

export interface Launch {
  place: Place
  spec: QemuSpec
  /** The engine's command, by the spec. */
  command: readonly string[]
  env?: Readonly<Record<string, string>>
  /** Makes what else it needs, from its files. */
  prepare?: () => Promise<void>
  /** Of the same machine: appended to the base initramfs, and then `initrd`. */
  archives: readonly string[]
  initrd: Buffer
  signal: AbortSignal
}

/** An engine that was started, as the machine that it runs on sees it. */
export interface Launched {
  pid: number
  /** Ends when the engine ends; for one on another machine it is the program there that waits for it. */
  process: Process
  /** Settles when the guest's ssh server listens; rejects with the signal's reason. */
  up: Promise<void>
}

/** Starts a guest's engine on a host: on this one as a child of this process, whose death it shares if the spec says so. */
export async function launchOnHost(launch: Launch): Promise<Launched> {
  const { place, spec, command, env, prepare, archives, initrd, signal } = launch
  const { machine } = place
  const { files } = spec
  await prepareFiles(place, files, archives, initrd, signal)
  await prepare?.()
  const detach = { log: files.engineLog, stays: !spec.endWithParent }
  const process = await machine.spawn(command, { detach, env })
  if (process.pid === undefined) throw new NestvmError('ENGINE_FAILED', `the engine did not start on ${machine.name}`)
  const local = machine.name === thisHost
  const up = (local ? logSaysUp : logThereSaysUp)(machine, files.kernelLog, signal)
  // Whoever waits for it may have something else to do first.
  up.catch(() => {})
  return { pid: process.pid, process, up }
}

/** Starts the QEMU of a saved guest, whose state it waits for. */
export async function launchRestored({ machine, qemu }: Place, spec: QemuSpec): Promise<Launched> {
  const { files } = spec
  for (const dir of [dirname(files.pidFile), dirname(files.qmpSocket)]) {
    await mkdir(dir, { recursive: true, mode: 0o700 })
  }
  const detach = { log: files.engineLog, stays: !spec.endWithParent }
  await writeFile(files.eventsInput, eventsInput)
  const process = await machine.spawn([...qemu, ...qemuArguments(spec)], { detach })
  if (process.pid === undefined) throw new NestvmError('ENGINE_FAILED', `QEMU did not start on ${machine.name}`)
  return { pid: process.pid, process, up: Promise.resolve() }
}

async function prepareFiles(
  place: Place,
  files: EngineFiles,
  archives: readonly string[],
  initrd: Buffer,
  signal: AbortSignal,
): Promise<void> {
  const dirs = [dirname(files.pidFile), dirname(files.qmpSocket)]
  const paths = [...dirs, files.initrd, files.engineLog, files.eventsInput, place.baseInitrd, ...archives]
  const argv = ['sh', '-c', filesScript, 'sh', ...paths]
  try {
    await run(place.machine, argv, { input: initrd, env: { LC_ALL: 'C' }, timeoutMs: 60_000, signal })
  } catch (error) {
    if (!saysFull(String(error))) throw error
    throw new NestvmError('NO_SPACE', `no space left to write ${files.initrd}`, { hint: 'nestvm prune', cause: error })
  }
}

const filesScript = `umask 077
initrd=$3 log=$4 events=$5
mkdir -p "$1" "$2" && shift 5 && cat "$@" - > "$initrd" && : > "$log" && printf %s '${eventsInput}' > "$events"`

/**
 * Starts a guest's engine in a guest hypervisor, in one round trip, with a tap device and a route to the guest.
 * The static ARP entry lets a connection's first packet wait at the tap device rather than an ARP request be lost,
 * whose repetition would come a second later. With `ends`, the hypervisor ends with its guest and hands on, through
 * its own ports, what the guest's command wrote; whoever waits for this script's end has a few seconds to ask why.
 */
export async function launchInGuest(
  { place, spec, command, archives, initrd, signal }: Launch,
  network: { tap: string; address: string },
  ends: boolean,
): Promise<Launched> {
  const { files } = spec
  const argv = [
    ...['sh', '-c', launchScript, 'sh', dirname(files.pidFile)],
    [place.baseInitrd, ...archives].join(' '),
    ...[network.tap, network.address, spec.mac, ends ? spec.name : '', ...command],
  ]
  const process = await place.machine.spawn(argv, { signal })
  process.stdin.end(initrd)
  return { process, ...(await readLaunch(process, place.machine.name, signal)) }
}

/** All that a guest's engine needs in a guest hypervisor, but for the route to it. */
const prepareScript = `umask 077
mkdir -p $dir && mkfifo $dir/never && exec 4<> $dir/never || exit 3
n=0; while [ ! -e ${hypervisorReady} ] && [ $n -lt 3000 ]; do n=$((n + 1)); read -t 0.02 x <&4; done
[ -c /dev/kvm ] || { echo "this guest has no /dev/kvm" >&2; exit 3; }
printf %s '${eventsInput}' > $dir/events.in
tunctl -t $tap > /dev/null || exit 3
echo 1 > /proc/sys/net/ipv4/conf/$tap/proxy_arp
echo 0 > /proc/sys/net/ipv4/neigh/$tap/proxy_delay
ip link set $tap mtu ${largeMtu} up && arp -i $tap -s $address $mac || exit 3
`

/**
 * Starts the QEMU of a guest that is to come from another guest hypervisor, and waits for its control socket. To the
 * guest its tap device is the one that it had, `hypervisorMac` and all. There is no route to it yet. Returns its pid.
 */
export async function launchIncoming(
  { machine, qemu }: Place,
  spec: QemuSpec,
  network: { tap: string; address: string; hypervisorMac: string },
  limits: { timeoutMs: number; signal: AbortSignal },
): Promise<number> {
  const { files, mac } = spec
  const { tap, address, hypervisorMac } = network
  const given = [dirname(files.pidFile), tap, address, mac, hypervisorMac]
  const argv = ['sh', '-c', incomingScript, 'sh', ...given, ...qemu, ...qemuArguments(spec)]
  const { stdout, stderr, exit } = await run(machine, argv, { ...limits, allowFailure: true })
  if (exit.code === 0) return Number(stdout)
  throw new NestvmError('ENGINE_FAILED', `QEMU did not start on ${machine.name}: ${stderr.trim()}`)
}

/** The same on a host, for a level 1 guest. */
export async function launchIncomingOnHost(
  { machine, qemu }: Place,
  spec: QemuSpec,
  limits: { timeoutMs: number; signal: AbortSignal },
): Promise<number> {
  const { pidFile, qmpSocket, eventsInput: input, engineLog: log } = spec.files
  await run(machine, ['sh', '-c', receiverScript, 'sh', dirname(pidFile), dirname(qmpSocket), input], limits)
  const { pid } = await machine.spawn([...qemu, ...qemuArguments(spec)], { detach: { log, stays: true } })
  const argv = ['sh', '-c', receivesScript, 'sh', qmpSocket, String(pid), log]
  const { stderr, exit } = await run(machine, argv, { ...limits, allowFailure: true })
  if (pid !== undefined && exit.code === 0) return pid
  throw new NestvmError('ENGINE_FAILED', `QEMU did not start on ${machine.name}: ${stderr.trim()}`)
}

const receiverScript = `umask 077; mkdir -p "$1" "$2" && printf %s '${eventsInput}' > "$3"`

const receivesScript = `until [ -S "$1" ]; do
  [ -d "/proc/$2" ] || { cat "$3" >&2; exit 1; }
  sleep 0.05 2> /dev/null || sleep 1
done`

const incomingScript = `dir=$1 tap=$2 address=$3 mac=$4 hypervisor=$5; shift 5
${prepareScript}ip link set $tap address $hypervisor || exit 3
setsid "$@" > $dir/engine.log 2>&1 < /dev/null &
while [ ! -S $dir/qmp ] && kill -0 $! 2> /dev/null; do read -t 0.02 x <&4; done
[ -s $dir/engine.pid ] || { cat $dir/engine.log >&2; exit 4; }
cat $dir/engine.pid`

/**
 * Writes the pid, then `up`. It waits for both without starting programs: reading from a pipe that nobody writes to,
 * with a limit, is a sleep. A line of the log may come in pieces: at the end of the file `read` fails with what is
 * there so far, and without IFS it keeps the spaces at the pieces' ends.
 */
const launchScript = `dir=$1 base=$2 tap=$3 address=$4 mac=$5 ends=$6; shift 6
${prepareScript}cat $base - > $dir/initrd || exit 3
ip route add $address/32 dev $tap || exit 3
(
  "$@" > $dir/engine.log 2>&1 < /dev/null
  status=$?
  [ "$ends" ] && {
    echo "<0>nestvm: the engine of $ends ended (status $status): $(tail -n 1 $dir/events.log)" > /dev/kmsg
    for port in ${guestPorts.output}; do cat $dir/output.log > $port; done
    for port in ${guestPorts.exitStatus}; do cat $dir/exit-status > $port; done
    sync
    asked=8; kill -0 $$ 2> /dev/null || asked=0
    { [ $asked = 0 ] || read -t $asked x <&4; poweroff -f; } &
  }
  exit $status
) &
while [ ! -e $dir/kernel.log ] && kill -0 $! 2> /dev/null; do read -t 0.02 x <&4; done
[ -e $dir/kernel.log ] || { cat $dir/engine.log >&2; exit 4; }
read pid < $dir/engine.pid; echo $pid
exec 3< $dir/kernel.log
line=
while kill -0 $pid 2> /dev/null; do
  if IFS= read -r part <&3; then
    case $line$part in *"${guestUp}"*) echo up; break ;; esac
    line=
  else line=$line$part; read -t 0.05 x <&4; fi
done
wait $!`

function readLaunch(process: Process, where: string, signal: AbortSignal): Promise<Pick<Launched, 'pid' | 'up'>> {
  return new Promise((resolve, reject) => {
    let stdout = ''
    let stderr = ''
    let isUp: (() => void) | undefined
    const up = new Promise<void>((done, failed) => {
      isUp = done
      // A hypervisor that hangs does not even end the script.
      signal.addEventListener('abort', () => failed(signal.reason), { once: true })
    })
    up.catch(reject)
    process.stderr.on('data', (chunk: Buffer) => {
      stderr = (stderr + chunk).slice(-2000)
    })
    process.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk
      const [pid, said] = stdout.split('\n')
      if (pid && said !== undefined) resolve({ pid: Number(pid), up })
      if (said === 'up') isUp?.()
    })
    const fail = (what: string) =>
      reject(new NestvmError('ENGINE_FAILED', `the engine did not start on ${where}: ${stderr.trim() || what}`))
    process.exited.then(({ code, signal }) => fail(`status ${code ?? signal}`), reject)
  })
}

/** Looks at the end of a small file in short intervals: a change there is seen no later than by a watch on it. */
async function logSaysUp(_: Machine, path: string, signal: AbortSignal): Promise<void> {
  while (!(await readFile(path, 'latin1').catch(() => '')).includes(guestUp)) {
    await sleep(15, undefined, { signal })
  }
}

/** The same on another host. It ends with the guest, whose sockets and logs go then. */
async function logThereSaysUp(machine: Machine, path: string, signal: AbortSignal): Promise<void> {
  const script = 'until grep -qs "$2" "$1"; do sleep 0.05 2>/dev/null || sleep 1; [ -d "$3" ] || exit 1; done'
  await run(machine, ['sh', '-c', script, 'sh', path, guestUp, dirname(path)], { signal })
}
