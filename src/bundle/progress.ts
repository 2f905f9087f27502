export interface ProgressEvent {
  /** `wait`: another set-up is running. The others follow one another in this order; some may not occur. */
  phase: 'wait' | 'lists' | 'download' | 'unpack' | 'build' | 'compile' | 'copy'
  /** What is being done, for people: `QEMU and its libraries`. */
  label: string
  /** What changes from moment to moment, to be shown on terminals only. */
  detail?: string
  bytesDone: number
  /** Absent where it is not known beforehand. */
  bytesTotal?: number
}

export type Progress = (event: ProgressEvent) => void
