import { randomBytes } from 'node:crypto'
import type { LockOwner, LockState, OpenState } from './file-state.ts'
import { leaseTime } from './protocol.ts'
import type { Session } from './session.ts'

/** A guest's kernel. */
export class Client {
  readonly sessions = new Map<string, Session>()
  readonly states = new Map<string, OpenState | LockState>()
  private readonly lockOwners = new Map<string, LockOwner>()
  confirmed = false
  /** Of the next CREATE_SESSION, and the answer to the last one. */
  sequence = 1
  created: Buffer | undefined
  reclaimComplete = false
  private seenAt = performance.now()

  constructor(
    readonly id: bigint,
    readonly owner: string,
    readonly verifier: string,
  ) {}

  seen(): void {
    this.seenAt = performance.now()
  }

  get expired(): boolean {
    return performance.now() - this.seenAt > leaseTime * 1000
  }

  lockOwner(name: Buffer): LockOwner {
    const key = name.toString('latin1')
    const owner = this.lockOwners.get(key) ?? { client: this, name: Buffer.from(name) }
    this.lockOwners.set(key, owner)
    return owner
  }

  /** One that holds nothing yet is not remembered. */
  knownLockOwner(name: Buffer): LockOwner {
    return this.lockOwners.get(name.toString('latin1')) ?? { client: this, name }
  }

  forgetLockOwner(owner: LockOwner): void {
    this.lockOwners.delete(owner.name.toString('latin1'))
  }
}

const maxClients = 16

export class Clients {
  private readonly byId = new Map<bigint, Client>()
  private lastId = BigInt(`0x${randomBytes(4).toString('hex')}00000000`)

  /** `drop` gives up all that a client holds. */
  constructor(private readonly drop: (client: Client) => void) {}

  get(id: bigint): Client | undefined {
    return this.byId.get(id)
  }

  find(owner: string, confirmed: boolean): Client | undefined {
    return [...this.byId.values()].find((client) => client.owner === owner && client.confirmed === confirmed)
  }

  add(owner: string, verifier: string): Client {
    if (this.byId.size >= maxClients) this.removeOldest()
    const client = new Client(++this.lastId, owner, verifier)
    this.byId.set(client.id, client)
    return client
  }

  remove(client: Client): void {
    this.byId.delete(client.id)
    this.drop(client)
  }

  all(): Client[] {
    return [...this.byId.values()]
  }

  private removeOldest(): void {
    const oldest = this.all().find(({ expired, confirmed }) => expired || !confirmed) ?? this.all()[0]
    if (oldest) this.remove(oldest)
  }
}
