import { randomBytes } from 'node:crypto'
import { type Duplex, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { sshServer } from '../bundle/guest/scripts.ts'
import { timeLimit } from '../machine/limit.ts'
import type { Exit, Machine, Process, SpawnOptions } from '../machine/machine.ts'
import { commandLine, quote } from '../machine/quote.ts'
import { run } from '../machine/run.ts'
import { thawScript } from '../stack/freeze.ts'
import type { GuestIdentity } from '../stack/initrd.ts'
import { NestvmError } from '../store/error.ts'

/*
 * A guest that is to be saved waits, as a part of what is saved, for whoever restores it: a shell that has all it needs
 * in memory, behind one connection for orders and answers and one for each output. In a restored guest every program
 * that is not yet running, and every message of an ssh handshake, is code that the emulator has to translate anew: a
 * command by this shell takes a third of the time of one by ssh. It takes orders once, after the token.
 */

/** The ports that the shell waits at, of the guest's own address. */
export const primedPorts = { orders: 7, stdout: 8, stderr: 9 }

const dir = '/run/nestvm/primed'
/** What becomes of it when somebody has come. */
const taken = '/run/nestvm/taken'

/** The shell sees nothing of the ssh session that started it. */
const waitScript = `cd ${dir}
nc -l -p ${primedPorts.orders} < out > in &
nc -l -p ${primedPorts.stdout} < stdout > /dev/null & stdout=$!
nc -l -p ${primedPorts.stderr} < stderr > /dev/null & stderr=$!
unset SSH_CLIENT SSH_CONNECTION
exec > out < in 3> stdout 4> stderr 5<> never
read -r given && [ "$given" = "$1" ] || exit 1
rm -rf ${taken}; mv ${dir} ${taken}
cd /root
. /proc/self/fd/0`

/**
 * Starts the ssh server anew when it is told to, now or soon. A process of its own: the command runs in the foreground
 * of the other shell, as what a shell runs in the background cannot be interrupted. Connections of the time before are
 * gone for good; the port is free when the last of their servers has ended.
 */
const serveScript = `cd ${dir}
exec > out 5<> never
read when < serve
[ $when = soon ] && read -t 1 x <&5
killall -9 dropbear; until ${sshServer} 5>&-; do read -t 0.02 x <&5; done; echo renewed`

/**
 * Ends the waiting, also of what a saver who was killed has left: every process that is in the directory. Those of a
 * shell that was taken are elsewhere.
 */
const disarmScript = `[ ! -e ${dir} ] || {
  pids=$(ls -l /proc/[0-9]*/cwd 2> /dev/null | sed -n 's,.* /proc/\\([0-9]*\\)/cwd -> ${dir}$,\\1,p')
  [ ! "$pids" ] || kill -9 $pids
  rm -rf ${dir}
}`

/**
 * The guest's start script writes the marks last. start-stop-daemon lets nothing of this session's
 * stay; with a pid file it does not look for another shell.
 */
const primeScript = `n=0; until [ -s /run/nestvm/marks ] || [ $n -ge $2 ]; do n=$((n + 1)); usleep 50000; done
${disarmScript}
n=0; while grep -q ':000[789] 0*:0000 0A' /proc/net/tcp*; do n=$((n + 1)); [ $n -lt 1000 ] || exit 1; usleep 20000; done
mkdir -p ${dir} && cd ${dir} && mkfifo in out stdout stderr never serve || exit 1
start-stop-daemon -S -b -m -p wait.pid -x /bin/sh -- -c "$3" sh "$1"
start-stop-daemon -S -b -m -p serve.pid -x /bin/sh -- -c "$4"
n=0; until [ "$(cat /proc/net/tcp* | grep -c ':000[789] 0*:0000 0A')" = 3 ]; do n=$((n + 1)); [ $n -lt 1000 ] || exit 1; usleep 20000; done`

/** Lets a guest wait. Its start has ended then. */
export async function prime(guest: Machine, token: string, timeoutMs: number, signal: AbortSignal) {
  const tries = String(Math.round(timeoutMs / 2 / 50))
  await run(guest, ['sh', '-c', primeScript, 'sh', token, tries, waitScript, serveScript], { timeoutMs, signal })
}

/** Ends the waiting in a guest that goes on after it was saved. */
export async function disarm(guest: Machine, timeoutMs: number): Promise<void> {
  await run(guest, ['sh', '-c', disarmScript], { timeoutMs, allowFailure: true })
}

/**
 * Makes a restored guest another one than its siblings. Opening the hibernation device for writing is what makes the
 * kernel draw fresh random numbers at once (random_pm_notification in drivers/char/random.c): by itself it would give
 * all of them the same for up to a minute, whatever is written to /dev/urandom.
 */
export function renewScript({ hostname, address, login, host }: GuestIdentity, now: number): string {
  const hosts = `127.0.0.1 localhost\\n::1 localhost\\n${address} ${hostname}\\n`
  const key = [...host.dropbear].map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('')
  return `echo ${randomBytes(48).toString('hex')} > /dev/urandom
: > /dev/snapshot
date -s @${Math.round(now / 1000)} > /dev/null
echo ${quote(hostname)} > /proc/sys/kernel/hostname
echo ${quote(hostname)} > /etc/hostname
echo ${randomBytes(16).toString('hex')} > /etc/machine-id
printf ${quote(hosts)} > /etc/hosts
printf ${quote(key)} > /etc/nestvm/host-key
echo ${quote(login.publicLine)} > /root/.ssh/authorized_keys
`
}

/** The far end of the connection for orders. */
export class PrimedShell {
  private readonly answers = new Map<string, (rest: string) => void>()
  private readonly lost: Promise<never>

  private constructor(
    private readonly name: string,
    private readonly orders: Duplex,
    private readonly limitMs: number,
  ) {
    this.lost = new Promise((_, reject) => {
      orders.once('close', () => reject(new NestvmError('MACHINE_LOST', `the connection to ${name} was lost`)))
    })
    this.lost.catch(() => {})
    orders.on('error', () => {})
    let text = ''
    orders.on('data', (chunk: Buffer) => {
      const lines = (text + chunk).split('\n')
      text = lines.pop() ?? ''
      for (const line of lines) {
        const [word = '', rest = ''] = line.split(' ')
        this.answers.get(word)?.(rest)
      }
    })
  }

  /** What it is told to do at once may take `limitMs` milliseconds. */
  static wake(name: string, orders: Duplex, token: string, limitMs: number): PrimedShell {
    const shell = new PrimedShell(name, orders, limitMs)
    shell.tell(`${token}\n${thawScript}`)
    return shell
  }

  /** What it is to do before anything else. */
  tell(script: string): void {
    this.orders.write(script)
  }

  close(): void {
    this.orders.destroy()
  }

  /** Starts the ssh server anew, with the guest's new keys. Throws `MACHINE_LOST` or `GUEST_TIMEOUT`. */
  async serve(): Promise<void> {
    const served = this.soonSaid('renewed')
    this.tell(`kill $stdout $stderr; echo now > ${taken}/serve\n`)
    await served
  }

  /** Settles when a process in the guest is no more. The shell does nothing else from then on. */
  async watch(pid: number): Promise<void> {
    const gone = this.said('gone')
    this.tell(`while kill -0 ${pid}; do read -t 1 x <&5; done 2> /dev/null; echo gone\n`)
    await gone
  }

  /**
   * Runs the one command that this shell runs, which reads nothing; `kill` is how to reach it then. A moment later the ssh
   * server starts anew.
   */
  async run(
    argv: readonly string[],
    { env, cwd, signal }: SpawnOptions,
    outputs: { stdout: Duplex; stderr: Duplex },
    kill: (signal: NodeJS.Signals, pid: string) => Promise<void>,
  ): Promise<{ process: Process; served: Promise<void> }> {
    const started = this.soonSaid('started')
    const served = this.soonSaid('renewed').then(() => {})
    served.catch(() => {})
    const ended = this.said('ended')
    ended.catch(() => {})
    const { stdout, stderr } = outputs
    const over = Promise.all([stdout, stderr].map((stream) => new Promise((resolve) => stream.once('close', resolve))))
    this.tell(`echo soon > ${taken}/serve
( read pid x < /proc/self/stat; echo started $pid; exec >&3 2>&4 3>&- 4>&- 5>&-
${commandLine(argv, { env, cwd, noInput: true })} )
echo ended $?; exec 3>&- 4>&-
`)
    const pid = await started
    const end = (name: NodeJS.Signals = 'SIGTERM') => void kill(name, pid).catch(() => {})
    const abort = () => end('SIGKILL')
    signal?.addEventListener('abort', abort, { once: true })
    if (signal?.aborted) abort()
    const exited = ended.then(async (status): Promise<Exit> => {
      signal?.removeEventListener('abort', abort)
      // What it has left running in the guest may hold its output open for ever.
      await Promise.race([over, quiet([stdout, stderr])])
      return { code: Number(status), signal: null }
    })
    exited.catch(() => {})
    const process = { pid: Number(pid), stdin: nowhere(), stdout, stderr, exited, kill: end, resize: () => {} }
    return { process, served }
  }

  private said(word: string): Promise<string> {
    return Promise.race([new Promise<string>((resolve) => this.answers.set(word, resolve)), this.lost])
  }

  private soonSaid(word: string): Promise<string> {
    const late = new Promise<never>((_, reject) => {
      timeLimit(this.limitMs).addEventListener('abort', () =>
        reject(new NestvmError('GUEST_TIMEOUT', `${this.name} does not answer after it was restored`)),
      )
    })
    late.catch(() => {})
    return Promise.race([this.said(word), late])
  }
}

/** Settles when nothing has come for a second. What comes slowly, or is read slowly, is waited for. */
async function quiet(streams: readonly Duplex[]): Promise<void> {
  let lastAt = performance.now()
  const heard = () => {
    lastAt = performance.now()
  }
  for (const stream of streams) stream.on('data', heard)
  while (performance.now() - lastAt < 1000 || streams.some((stream) => stream.isPaused())) {
    await sleep(100, undefined, { ref: false })
    if (streams.every(({ closed }) => closed)) break
  }
  for (const stream of streams) stream.off('data', heard)
}

function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() })
}
