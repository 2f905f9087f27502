import { LocalMachine } from '../machine/local.ts'
import type { Machine } from '../machine/machine.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { reach } from './reach.ts'
import type { GuestRecord } from './record.ts'

/** What one command works with: the host, and the connections to guests that it has opened so far. */
export class Context implements AsyncDisposable {
  readonly host: Machine = new LocalMachine()
  readonly signal: AbortSignal
  /** Starts nestvm itself, to be followed by its arguments. */
  readonly program: readonly string[] = [process.execPath, ...process.execArgv, process.argv[1] ?? 'nestvm']
  private readonly guests = new Map<string, Promise<SshMachine>>()

  constructor(signal: AbortSignal) {
    this.signal = signal
  }

  /** The connection to a running guest, opened at the first call. */
  guest(record: GuestRecord): Promise<SshMachine> {
    const known = this.guests.get(record.id)
    if (known) return known
    const machine = reach(this.host, record, this.signal)
    machine.catch(() => this.guests.delete(record.id))
    this.guests.set(record.id, machine)
    return machine
  }

  adopt(record: GuestRecord, machine: SshMachine): void {
    this.guests.set(record.id, Promise.resolve(machine))
  }

  /** Closes the connection to a guest that has ended. */
  forget(record: GuestRecord): void {
    const machine = this.guests.get(record.id)
    this.guests.delete(record.id)
    machine?.then((guest) => guest[Symbol.asyncDispose]()).catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const open = [...this.guests.values()]
    this.guests.clear()
    await Promise.allSettled(open.map(async (machine) => (await machine)[Symbol.asyncDispose]()))
  }
}
