export type { Address, Exit, Machine, Process, SpawnOptions, WindowSize } from './machine/machine.ts'
export { type ErrorFields, NestvmError } from './store/error.ts'
export { version } from './store/version.ts'
