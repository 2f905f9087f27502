import type { Duplex } from 'node:stream'
import type { Address, Machine, Process, SpawnOptions } from '../machine/machine.ts'
import type { Context } from '../stack/context.ts'
import { answerLimitMs } from '../stack/plan.ts'
import type { GuestRecord } from '../stack/record.ts'
import { PrimedShell, renewScript } from './primed.ts'
import type { Clone } from './register.ts'

/**
 * A guest that has just been restored. Its first command, if that reads nothing, runs by the shell that waited in it;
 * whatever else wants to get in waits for its ssh server, which starts anew with the guest's own keys.
 */
export class PrimedGuest implements Machine {
  readonly name: string
  readonly record: GuestRecord
  private shell: Promise<PrimedShell> | undefined
  private taken: Promise<PrimedShell> | undefined
  private served: Promise<void> | undefined

  constructor(
    private readonly context: Context,
    private readonly clone: Clone,
    private readonly token: string,
  ) {
    this.record = clone.record
    this.name = clone.record.path
    context.gate(clone.record, () => this.renew())
  }

  /** Lets the guests in it run on, which were stopped when it was saved. */
  wake(): Promise<PrimedShell> {
    this.shell ??= this.connectTo(this.clone.sockets.orders).then((orders) =>
      PrimedShell.wake(this.name, orders, this.token, answerLimitMs(this.record.level)),
    )
    return this.shell
  }

  /** Makes it another guest than its siblings; what is asked of it from now on comes after that. */
  take(): Promise<PrimedShell> {
    this.taken ??= this.wake().then((shell) => {
      shell.tell(renewScript(this.clone.identity, Date.now()))
      return shell
    })
    return this.taken
  }

  /** The same, and lets others in. Throws `MACHINE_LOST` or `GUEST_TIMEOUT`. */
  renew(): Promise<void> {
    this.served ??= this.take().then((shell) => shell.serve())
    return this.served
  }

  async spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<Process> {
    const { noInput, tty, detach } = options
    if (this.served || !noInput || tty || detach) return (await this.context.guest(this.record)).spawn(argv, options)
    const { stdout, stderr } = this.clone.sockets
    const started = this.take().then(async (shell) => {
      const outputs = { stdout: await this.connectTo(stdout), stderr: await this.connectTo(stderr) }
      return shell.run(argv, options, outputs, (signal, pid) => this.signal(signal, pid))
    })
    this.served = started.then(({ served }) => served)
    this.served.catch(() => {})
    return (await started).process
  }

  async connect(address: Address, signal?: AbortSignal): Promise<Duplex> {
    return (await this.context.guest(this.record)).connect(address, signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.shell?.then((shell) => shell.close()).catch(() => {})
  }

  private async signal(signal: NodeJS.Signals, pid: string): Promise<void> {
    const guest = await this.context.guest(this.record)
    await guest.spawn(['kill', '-s', signal.replace(/^SIG/, ''), pid])
  }

  private connectTo(socket: string): Promise<Duplex> {
    return this.context.host.connect({ unix: socket }, this.context.signal)
  }
}
