import type { Machine } from '../machine/machine.ts'
import type { SshMachine } from '../machine/ssh.ts'
import { type Host, localHost, remoteHost, thisHost } from './host.ts'
import { reach } from './reach.ts'
import type { GuestRecord } from './record.ts'

/** What one command works with: this host, and the connections to hosts and guests that it has opened so far. */
export class Context implements AsyncDisposable {
  private readonly here = localHost()
  readonly host: Machine = this.here.machine
  readonly signal: AbortSignal
  /** Starts nestvm itself, to be followed by its arguments. */
  readonly program: readonly string[] = [process.execPath, ...process.execArgv, process.argv[1] ?? 'nestvm']
  private readonly disposed: AbortController
  private readonly hosts: Map<string, Promise<Host>>
  private readonly guests: Map<string, Promise<SshMachine>>
  private readonly ended: Set<string>
  private readonly gates: Map<string, () => Promise<void>>

  constructor(signal: AbortSignal, shared?: Context) {
    this.signal = signal
    this.disposed = shared?.disposed ?? new AbortController()
    this.hosts = shared?.hosts ?? new Map()
    this.guests = shared?.guests ?? new Map()
    this.ended = shared?.ended ?? new Set()
    this.gates = shared?.gates ?? new Map()
  }

  /** The same connections, for what comes to its end although the command is to stop. */
  toTheEnd(): Context {
    return new Context(new AbortController().signal, this)
  }

  /** The connection to a running guest, opened at the first call. */
  guest(record: GuestRecord): Promise<SshMachine> {
    const known = this.guests.get(record.id)
    if (known) return known
    return this.keep(record.id, this.open(record))
  }

  /** Until it is lost: whoever asks then gets a new connection. */
  private keep(id: string, machine: Promise<SshMachine>): Promise<SshMachine> {
    const drop = () => this.guests.get(id) === machine && this.guests.delete(id)
    machine.then(({ lost }) => lost.then(drop), drop)
    this.guests.set(id, machine)
    return machine
  }

  /** Its engine's end is meant from now on. */
  ending(record: GuestRecord): void {
    this.ended.add(record.base)
  }

  isEnding(record: GuestRecord): boolean {
    return this.ended.has(record.base)
  }

  /** Connections to a guest wait for this, which is called for the first of them. */
  gate(record: GuestRecord, ready: () => Promise<void>): void {
    this.gates.set(record.id, ready)
  }

  private async open(record: GuestRecord): Promise<SshMachine> {
    await this.gates.get(record.id)?.()
    const { machine } = await this.hostNamed(record.host)
    return reach(machine, record, AbortSignal.any([this.signal, this.disposed.signal]))
  }

  /** This host, or the connection to another one, opened at the first call. Cleaning up goes on after Ctrl-C. */
  async hostNamed(name: string): Promise<Host> {
    if (name === thisHost) return this.here
    const known = this.hosts.get(name)
    if (known) return known
    const signal = this.signal.aborted ? new AbortController().signal : this.signal
    const host = remoteHost(this.host, name, signal)
    const drop = () => this.hosts.get(name) === host && this.hosts.delete(name)
    host.then(({ machine }) => machine.lost?.then(drop), drop)
    this.hosts.set(name, host)
    return host
  }

  adopt(record: GuestRecord, machine: SshMachine): void {
    this.keep(record.id, Promise.resolve(machine))
  }

  /** Closes the connection to a guest that has ended. */
  forget(record: GuestRecord): void {
    const machine = this.guests.get(record.id)
    this.guests.delete(record.id)
    machine?.then((guest) => guest[Symbol.asyncDispose]()).catch(() => {})
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A guest that is being connected to may never answer.
    this.disposed.abort()
    const guests = [...this.guests.values()]
    const hosts = [...this.hosts.values()]
    this.guests.clear()
    this.hosts.clear()
    await Promise.allSettled(guests.map(async (machine) => (await machine)[Symbol.asyncDispose]()))
    await Promise.allSettled(hosts.map(async (host) => (await host).machine[Symbol.asyncDispose]()))
  }
}
